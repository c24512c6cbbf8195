"""Run time from layouts: what a page walk costs a machine, and what a program would take under other page sizes.

suite (patterns x layouts, measured) --model--> Calibration (a file, with the machine's identity)
trace --walks--> reference walks of each block, small and huge --runtime--> seconds with an interval
"""
