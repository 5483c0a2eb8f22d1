"""Crons: the slots of a schedule, and the commands of a cron."""
