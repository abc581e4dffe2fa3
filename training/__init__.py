"""PyTorch networks, losses, data and fitting; what leaves here is a checkpoint (`.safetensors`)."""
