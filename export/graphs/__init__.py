"""Which graphs each method has, one file a method: `graphs(network, size) -> list of Graph`."""

GRAPHS = {
    "multis": "salience.export.graphs.multis:graphs",
}
