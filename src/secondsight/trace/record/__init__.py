"""Recording a program, a VM or a running process."""
