"""Draw a working memory: one heat map per layer and state head."""

from pathlib import Path

from matplotlib.figure import Figure

from backbone import MemoryState

__all__ = ["save_picture"]


def save_picture(state: MemoryState, path: Path) -> None:
    """Save the matrices of the first conversation in `state` as a PNG; all maps share one colour scale."""
    layers = {name: layer[0].cpu().numpy() for name, layer in state.layers.items()}
    heads = max(len(matrices) for matrices in layers.values())
    bound = max(float(abs(matrices).max()) for matrices in layers.values()) or 1.0
    figure = Figure(figsize=(1.6 * heads + 2, 1.6 * len(layers) + 1), layout="constrained")
    axes = figure.subplots(len(layers), heads, squeeze=False)
    for row, (name, matrices) in zip(axes, layers.items(), strict=True):
        for column, (axis, matrix) in enumerate(zip(row, matrices, strict=True)):
            image = axis.imshow(matrix, cmap="RdBu_r", vmin=-bound, vmax=bound)
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"state {column}", fontsize=8)
        row[0].set_ylabel(name.removeprefix("model.").removesuffix(".self_attn"), fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.6)
    figure.suptitle("Working memory: rows are values, columns are keys", fontsize=9)
    figure.savefig(path, dpi=120, bbox_inches="tight")
