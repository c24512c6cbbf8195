"""What runs inside the guest: the scenario verbs on real memory, and what the kernel said about it.

main      reads the job, goes through each batch step by step, prints what was answered
worker    one process per space: its area, its VM, its pins; forked from a warm parent
code      the few bytes of machine code that touch pages, in the process and in its VM
routines  that code, ready to be called: each access and system call on empty LRU batches
libc      the system calls, through ctypes
vm        a KVM VM whose vCPUs load and store lists of pages
pins      vmsplice, io_uring and O_DIRECT: pages held or used by get_user_pages
knobs     the sysfs files, set to known values
events    khugepaged's trace, and which block each event speaks of (pure: tested on the host)
file_events  the same of its visits to shared memory
passes    one deterministic pass
state     pagemap, kpageflags, kpagecount, and the entries in kernel memory
"""
