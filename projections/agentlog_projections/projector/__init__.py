"""The projector: assignment, fold, verdicts, announcements."""
