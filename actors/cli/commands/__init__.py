"""The commands of `actorbus`, one file for each thing they are about."""
