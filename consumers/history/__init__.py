"""The history: every event of the log as a row of ClickHouse, for SQL."""
