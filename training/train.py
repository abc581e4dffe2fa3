"""Train a network: `python training/train.py METHOD --data DIR... --output RUN`."""

from salience.training.cli import main

if __name__ == "__main__":
    main()
