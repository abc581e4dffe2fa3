"""Images with masks: folders, splits, augmentation, and synthetic scenes."""
