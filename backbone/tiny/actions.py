"""Define the requests that need a tool call with an argument that the user once stated."""

from dataclasses import dataclass

__all__ = ["ACTIONS", "ACTION_COLUMNS", "Action"]


@dataclass(frozen=True)
class Action:
    """Describe a request that needs a tool call whose argument depends on a stated attribute."""

    attribute: str
    requests: tuple[str, ...]
    tool: str
    argument: str
    report: str
    copied: str | None = None


# Names of columns that requests are made about: those that unrelated tables have, and others.
ACTION_COLUMNS = (
    "price", "income", "age", "score", "weight", "height", "rating", "sales", "profit", "cost", "demand", "clicks",
    "revenue", "volume", "duration", "distance", "speed", "humidity", "pressure", "salary", "sex", "bmi", "bp",
    "progression", "glucose", "alcohol", "ash", "magnesium", "flavanoids", "hue", "proline", "malic_acid",
    "color_intensity", "petal_length", "sepal_width", "mean_radius", "texture", "s1", "s5", "x2",
)  # fmt: skip

ACTIONS: tuple[Action, ...] = (
    Action(
        "test command",
        ("Run the tests.", "Please run the tests.", "Test the project now.", "Can you run our tests?"),
        "run_command",
        "command",
        "I ran {v}.",
    ),
    Action(
        "lint command",
        ("Run the linter.", "Please lint the code.", "Lint the project now."),
        "run_command",
        "command",
        "I ran {v}.",
    ),
    Action(
        "build command",
        ("Build the project.", "Please build it now.", "Start the build."),
        "run_command",
        "command",
        "I ran {v}.",
    ),
    Action(
        "format command",
        ("Format the code.", "Please format everything.", "Format the project now."),
        "run_command",
        "command",
        "I ran {v}.",
    ),
    Action(
        "chart type",
        ("Plot the {c} column.", "Draw the {c} column.", "Show me {c} in a figure."),
        "plot",
        "kind",
        "I plotted {c} as a {v} chart.",
        "column",
    ),
    Action(
        "missing value rule",
        ("Summarize the {c} column.", "Describe {c} for me.", "Give me a summary of {c}."),
        "summarize",
        "missing",
        "I summarized {c} with {v}.",
        "column",
    ),
    Action(
        "significance level",
        ("Compare {c} between the groups.", "Is {c} different between the groups?", "Test {c} for a difference."),
        "compare",
        "level",
        "I compared {c} at {v}.",
        "column",
    ),
    Action(
        "outlier rule",
        ("Average the {c} column.", "What is the mean of {c}?", "Aggregate {c} for me."),
        "aggregate",
        "outliers",
        "I averaged {c} with {v}.",
        "column",
    ),
    Action(
        "subgroup",
        ("Filter the table.", "Keep only our group.", "Show me the rows that we care about."),
        "filter_rows",
        "group",
        "I kept {v} only.",
    ),
)
