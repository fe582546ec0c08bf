"""Define what the bundled backbone's conversations are about: attributes, their values and how people say them."""

from dataclasses import dataclass

__all__ = ["ATTRIBUTES", "Attribute", "attribute"]


@dataclass(frozen=True)
class Attribute:
    """Describe one thing that a user can state: its names, its closed set of values and its own phrasings.

    `names[0]` is the name that answers use. The first word of every value is unique within the attribute.
    """

    names: tuple[str, ...]
    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def _attribute(names: str, values: str, statements: str, questions: str) -> Attribute:
    parts = (tuple(part.strip() for part in text.split("|")) for text in (names, values, statements, questions))
    return Attribute(*parts)


ATTRIBUTES: tuple[Attribute, ...] = (
    _attribute(
        "test command|command for the tests",
        "pytest -q|tox -e unit|nox -s tests|make test|just test|hatch test|npm test|cargo test|go test|bazel test|"
        "gradle test|mvn verify|rake spec|ctest -V|pdm test|python -m unittest",
        "We run the tests with {v}.|To test the code, always run {v}.|Tests are run with {v} here.",
        "How do we run the tests?|How are the tests run here?",
    ),
    _attribute(
        "lint command|command for linting",
        "ruff check|flake8 src|pylint src|make lint|just lint|npm run lint|eslint src|golangci run|cargo clippy|"
        "mypy src|pyright src|bandit src|shellcheck bin|tox -e lint|nox -s lint|prospector src",
        "We lint with {v}.|Before a commit, lint with {v}.|Linting is done by {v}.",
        "How do we lint the code?|How is linting done here?",
    ),
    _attribute(
        "build command|command for the build",
        "make build|python -m build|uv build|poetry build|hatch build|npm run build|cargo build|go build|cmake build|"
        "ninja all|docker build|bazel build|gradle build|mvn package|just build|meson compile",
        "We build the project with {v}.|To build, run {v}.|The build is started by {v}.",
        "How do we build the project?|How is the project built?",
    ),
    _attribute(
        "format command|command for formatting",
        "black src|ruff format|isort src|yapf src|autopep8 src|prettier src|gofmt src|rustfmt src|clang format|"
        "make format|just format|npm run format|tox -e format|nox -s format|cargo fmt|shfmt src",
        "We format the code with {v}.|Formatting is done by {v}.|To format, use {v}.",
        "How do we format the code?|How is formatting done?",
    ),
    _attribute(
        "package manager|tool for dependencies",
        "uv|pip|poetry|pdm|conda|hatch|npm|yarn|pnpm|cargo|bun|rye|mamba|pixi|pipenv|nix",
        "We install packages with {v}.|Dependencies are managed by {v}.|Install things with {v} only.",
        "How do we install packages?|What manages our dependencies?",
    ),
    _attribute(
        "line length|maximum line length",
        "72|79|80|84|88|90|92|96|99|100|104|110|112|118|120|128",
        "Lines may have at most {v} characters.|Wrap lines at {v} characters.|We break lines after {v} columns.",
        "How long may lines be?|Where do we wrap lines?",
    ),
    _attribute(
        "main branch|default branch",
        "main|master|develop|trunk|stable|next|release|staging|dev|edge|nightly|preview|production|integration|beta|"
        "canary",
        "Pull requests go to {v}.|We merge into {v}.|All work is merged to the {v} branch.",
        "Where do pull requests go?|Which branch do we merge into?",
    ),
    _attribute(
        "database|database engine",
        "postgres|sqlite|mysql|mariadb|redis|mongodb|duckdb|oracle|cassandra|clickhouse|snowflake|bigquery|neo4j|"
        "cockroach|dynamodb|firebird",
        "We store the data in {v}.|All tables live in {v}.|The service talks to {v}.",
        "Where do we store the data?|Where do the tables live?",
    ),
    _attribute(
        "web framework|framework of the service",
        "django|flask|fastapi|starlette|tornado|sanic|bottle|pyramid|falcon|litestar|aiohttp|quart|express|rails|"
        "spring|gin",
        "The service is written with {v}.|Our endpoints are built on {v}.|We serve requests with {v}.",
        "What is the service written with?|What are our endpoints built on?",
    ),
    _attribute(
        "deploy target|place we deploy to",
        "heroku|fly|render|vercel|netlify|lambda|kubernetes|nomad|azure|gcp|aws|railway|linode|hetzner|openshift|swarm",
        "We deploy to {v}.|Releases are shipped to {v}.|Production runs on {v}.",
        "Where do we deploy?|Where does production run?",
    ),
    _attribute(
        "reviewer|person who reviews",
        "Alice|Bob|Carol|Dave|Erin|Frank|Grace|Heidi|Ivan|Judy|Karl|Laura|Mallory|Nina|Oscar|Peggy",
        "{v} reviews the changes.|Ask {v} for a review.|Changes are reviewed by {v}.",
        "Who reviews the changes?|Who should I ask for a review?",
    ),
    _attribute(
        "server port|port of the service",
        "3000|4000|4200|5000|5050|6000|7000|7070|8000|8008|8080|8081|8443|8888|9000|9090",
        "The service listens on port {v}.|Start the server on port {v}.|Requests go to port {v}.",
        "Where does the service listen?|On which port do we start the server?",
    ),
    _attribute(
        "release name|name of the release",
        "otter|heron|badger|lynx|raven|bison|gecko|panda|tiger|whale|zebra|koala|moose|eagle|shark|beaver",
        "The next release is called {v}.|We call the release {v}.|Release notes use the name {v}.",
        "What is the next release called?|What do we call the release?",
    ),
    _attribute(
        "current task|open task",
        "login page|parser|cache layer|search index|upload form|payment flow|email queue|retry logic|config loader|"
        "billing report|user table|session store|audit trail|rate limiter|file watcher|image resizer",
        "Right now I am working on the {v}.|We are in the middle of the {v}.|I am busy with the {v}.",
        "What am I working on?|What are we in the middle of?",
    ),
    _attribute(
        "missing value rule|rule for missing values",
        "drop|mean|median|zero|mode|ffill|bfill|interpolate|knn|flag|ignore|minimum|maximum|spline|nearest|constant",
        "Treat missing values with {v}.|Handle missing values by {v}.|Gaps in the data are handled by {v}.",
        "How do we treat missing values?|How are gaps in the data handled?",
    ),
    _attribute(
        "significance level|alpha level",
        "0.001|0.002|0.005|0.01|0.015|0.02|0.025|0.03|0.04|0.05|0.06|0.08|0.1|0.12|0.15|0.2",
        "Test hypotheses at {v}.|A result counts when p is below {v}.|We call it significant below {v}.",
        "When is a result significant?|At which level do we test hypotheses?",
    ),
    _attribute(
        "currency|currency of the report",
        "euro|dollar|pound|yen|franc|krona|peso|rupee|real|won|rand|lira|zloty|baht|dinar|forint",
        "All amounts are in {v}.|Report amounts in {v}.|Money is shown in {v}.",
        "In what are the amounts?|How is money shown?",
    ),
    _attribute(
        "chart type|kind of chart",
        "bar|line|scatter|histogram|box|violin|area|pie|heatmap|bubble|donut|radar|treemap|step|strip|hexbin",
        "Draw a {v} chart.|I like plots as a {v} chart.|Figures should be a {v} chart.",
        "How should figures be drawn?|Which chart do I like?",
    ),
    _attribute(
        "target column|column to predict",
        "price|income|age|score|weight|height|rating|sales|profit|cost|demand|churn|clicks|revenue|volume|duration",
        "We want to predict {v}.|The model predicts {v}.|Everything is about the {v} column.",
        "What do we want to predict?|What does the model predict?",
    ),
    _attribute(
        "outlier rule|rule for outliers",
        "iqr|zscore|winsorize|clip|mad|percentile|tukey|grubbs|dixon|hampel|trim|cap|isolation|dbscan|huber|cook",
        "Outliers are handled with {v}.|Deal with outliers by {v}.|For extreme values use {v}.",
        "How do we deal with outliers?|How are extreme values handled?",
    ),
    _attribute(
        "subgroup|group of interest",
        "adults|students|women|men|seniors|teenagers|parents|teachers|nurses|drivers|farmers|tourists|members|"
        "patients|tenants|veterans",
        "Look at {v} only.|Restrict the analysis to {v}.|We only care about {v}.",
        "Whom do we look at?|Whom is the analysis restricted to?",
    ),
    _attribute(
        "time grain|time unit",
        "second|minute|hour|day|week|month|quarter|year|decade|fortnight|semester|season|sprint|shift|weekend|century",
        "Aggregate the data by {v}.|Group the series by {v}.|Show one point for each {v}.",
        "How do we group the series?|How is the data aggregated?",
    ),
    _attribute(
        "country|country of the study",
        "France|Spain|Italy|Norway|Sweden|Poland|Greece|Brazil|Chile|Peru|Canada|Mexico|Japan|India|Kenya|Egypt",
        "The data comes from {v}.|We study {v}.|The survey was done in {v}.",
        "Where does the data come from?|Where was the survey done?",
    ),
    _attribute(
        "sample size|number of rows to sample",
        "150|200|250|300|350|400|450|500|550|600|650|700|750|800|900|1000",
        "Sample {v} rows.|Draw {v} rows for each run.|Work with {v} rows at a time.",
        "How many rows do we sample?|How many rows do we work with?",
    ),
)


def attribute(name: str) -> Attribute:
    """Return the attribute whose canonical name is `name`; raise KeyError for another name."""
    for candidate in ATTRIBUTES:
        if candidate.names[0] == name:
            return candidate
    raise KeyError(name)
