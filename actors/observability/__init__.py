"""What is told about jobs: traces, log fields, events and telemetry.

Nothing here changes what becomes of a job.
"""
