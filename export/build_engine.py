"""Export a network: `python export/build_engine.py METHOD`."""

from salience.export.cli import main

if __name__ == "__main__":
    main()
