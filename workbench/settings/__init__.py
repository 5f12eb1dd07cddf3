"""The one schema of settings, as flags of the command line, as fields of a form, and as differences."""
