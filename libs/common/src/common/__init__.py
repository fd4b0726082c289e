"""Code that both services share: settings, schema, problems, credentials, health and logs."""
