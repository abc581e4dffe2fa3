"""How each method is trained: loss, labels, optimiser and schedule, one file a method."""

RECIPES = {
    "multis": "salience.training.recipes.multis:MultiScaleRecipe",
    "arn": "salience.training.recipes.arn:AttentionRecurrentRecipe",
    "lps": "salience.training.recipes.lps:PromoterRecipe",
    "cgd": "salience.training.recipes.cgd:ClassifierRecipe",
    "gicd": "salience.training.recipes.gicd:GradientInducedRecipe",
}
