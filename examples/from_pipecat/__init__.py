"""Programs as one writes them for Pipecat's bus: only the imports differ, and each file has both.

`python -m examples.from_pipecat.sensors` runs one here; with LIBRARY=pipecat in the environment it runs on Pipecat,
where that is installed. `make compare-pipecat` runs all of them on both and compares what they print.
"""
