"""Scores of saliency maps against masks, and reports of them. Needs the extra `evaluate`."""
