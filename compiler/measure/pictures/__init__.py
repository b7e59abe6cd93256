"""Pictures for people, drawn with matplotlib, which is imported when one is drawn."""
