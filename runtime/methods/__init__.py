"""The detectors, one file a method: which graphs run, and how they follow each other."""

METHODS = {
    "multis": "salience.runtime.methods.multis:MultiScaleDetector",
    "arn": "salience.runtime.methods.arn:AttentionRecurrentDetector",
    "lps": "salience.runtime.methods.lps:PromoterDetector",
    "cgd": "salience.runtime.methods.cgd:ClampedDescentDetector",
    "gicd": "salience.runtime.methods.gicd:GroupDetector",
}
