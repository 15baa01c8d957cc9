"""The command line, `actorbus`. It needs the extra `cli`; `import actors` never loads it."""
