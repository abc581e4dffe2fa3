"""Videos through a detector: frames in, rendered maps out, with the sound and the timestamps that the input has."""
