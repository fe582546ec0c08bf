"""Make and hold the bundled backbone: a small model of the project's own, trained by `recipe`."""
