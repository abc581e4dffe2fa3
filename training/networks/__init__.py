"""The networks, one file a method."""

NETWORKS = {
    "multis": "salience.training.networks.multis:MultiScale",
    "arn": "salience.training.networks.arn:AttentionRecurrent",
    "lps": "salience.training.networks.lps:Promoter",
    "cgd": "salience.training.networks.cgd:Classifier",
    "gicd": "salience.training.networks.gicd:GradientInduced",
}
