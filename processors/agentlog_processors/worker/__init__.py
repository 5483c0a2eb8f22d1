"""Worker: claims runs, executes them, ends them."""
