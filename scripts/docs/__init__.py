"""What the documentation site is built from besides docs/: used by mkdocs.yml and by the tests."""
