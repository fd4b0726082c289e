"""Code of both services: settings, schema, problems, credentials, health and logs."""
