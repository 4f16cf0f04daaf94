"""What a person reads about artifacts: pictures, lineage, the funnel of documents, Markdown."""
