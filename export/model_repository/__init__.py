"""A bundle becomes a model repository of Triton Inference Server."""
