"""Raw pages to clean text: extraction, repair, language, quality rules, redaction; rejects kept with a reason."""
