"""Templates of the cards and of the report of an analysis, and one rendered card per released model."""

from pathlib import Path

TEMPLATES = Path(__file__).parent
"""`*.md.jinja` are filled in by `audiopg.training.publishing.cards`, `*.html.jinja` by
`audiopg.training.analysis.report`."""
