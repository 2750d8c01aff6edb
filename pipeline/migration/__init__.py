"""Moving a metadata store from its SQLite file to a MySQL or PostgreSQL server, with every id and time as it was."""
