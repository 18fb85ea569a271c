"""How requests and answers travel: the table of methods, and JSON to and from messages."""
