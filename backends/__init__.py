"""The backends of lvc, one folder each."""
