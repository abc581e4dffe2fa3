"""Write a model repository for Triton Inference Server: `python export/triton_repository.py BUNDLE --output REPO`."""

from salience.export.model_repository.cli import main

if __name__ == "__main__":
    main()
