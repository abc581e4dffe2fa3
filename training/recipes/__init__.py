"""How each method is trained: loss, labels, optimiser and schedule, one file a method."""

RECIPES = {
    "multis": "salience.training.recipes.multis:MultiScaleRecipe",
}
