"""The networks, one file a method."""

NETWORKS = {
    "multis": "salience.training.networks.multis:MultiScale",
}
