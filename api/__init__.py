"""How the outside speaks to a node: HTTP, the command line, configuration, and the recipe that starts it all."""
