"""One module a format, each with one FORMAT; the registry finds them. CONTRIBUTING shows how."""
