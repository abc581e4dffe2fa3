"""Which graphs each method has, one file a method: a `MethodExport`, whose fields are the method's options."""

GRAPHS = {
    "multis": "salience.export.graphs.multis:MultiScaleExport",
    "arn": "salience.export.graphs.arn:AttentionRecurrentExport",
    "lps": "salience.export.graphs.lps:PromoterExport",
    "cgd": "salience.export.graphs.cgd:ClampedDescentExport",
    "gicd": "salience.export.graphs.gicd:GradientInducedExport",
}
