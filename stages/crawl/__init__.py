"""Raw documents from the web, from a documentation server, from files and from data sets."""
