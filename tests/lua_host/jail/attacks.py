"""What an owned worker tries: a syscall, its number on x86_64 and on aarch64, and its arguments.

FILE exists and is anyone's to change, NEW does not and is anyone's to make, FOLDER holds both. PORT listens,
at ADDRESS. PARENT is the test's process, VICTIM one of the worker's user. PAGE is memory to read and write,
which IOV describes; CODE is libc's. RIGHTS is a message with descriptor 0 in it; FILTER allows every syscall.
"""

from __future__ import annotations

from typing import Final

ATTACKS: Final = """
open                    2    -    FILE, 0
openat                  257  56   -100, FILE, 2
openat                  257  56   -100, NEW, 0o101, 0o666
openat                  257  56   -100, b'/proc/self/mem', 2
openat                  257  56   -100, b'/', 0o10000000
openat2                 437  437  -100, FILE, PAGE, 24
creat                   85   -    NEW, 0o666
memfd_create            319  279  b'x', 0
memfd_secret            447  447  0
read                    0    63   1, PAGE, 8
read                    0    63   2, PAGE, 8
read                    0    63   3, PAGE, 8
read                    0    63   -1, PAGE, 8
write                   1    64   1, b'x', 1
write                   1    64   2, b'x', 1
write                   1    64   3, b'x', 1
write                   1    64   2**32, b'x', 1
pread64                 17   67   0, PAGE, 8, 0
pwrite64                18   68   0, PAGE, 8, 0
readv                   19   65   0, IOV, 1
writev                  20   66   0, IOV, 1
sendfile                40   71   0, 0, 0, 8
splice                  275  76   0, 0, 0, 0, 8, 0
dup                     32   23   0
dup3                    292  24   0, 1, 0
fcntl                   72   25   0, 0, 1
fcntl                   72   25   0, 4, 0o4000
ioctl                   16   29   0, 0x5421, PAGE
pipe2                   293  59   PAGE, 0
sendmsg                 46   211  0, RIGHTS, 0
recvmsg                 47   212  0, RIGHTS, 0
sendto                  44   206  0, b'x', 1, 0, 0, 0
recvfrom                45   207  0, PAGE, 1, 0, 0, 0
shutdown                48   210  0, 2
socket                  41   198  2, 1, 0
socket                  41   198  1, 1, 0
socket                  41   198  16, 3, 0
socket                  41   198  17, 3, 0
socketpair              53   199  1, 1, 0, PAGE
connect                 42   203  0, ADDRESS, 16
bind                    49   200  0, ADDRESS, 16
accept4                 288  242  0, 0, 0, 0
execve                  59   221  b'/bin/true', 0, 0
execveat                322  281  -100, b'/bin/true', 0, 0, 0
fork                    57   -
vfork                   58   -
clone                   56   220  17, 0, 0, 0, 0
clone                   56   220  0x10f00, PAGE, 0, 0, 0
clone3                  435  435  PAGE, 64
kill                    62   129  PARENT, 18
kill                    62   129  VICTIM, 9
kill                    62   129  -1, 18
tgkill                  234  131  VICTIM, VICTIM, 9
rt_sigqueueinfo         129  138  VICTIM, 9, PAGE
pidfd_open              434  434  VICTIM, 0
pidfd_getfd             438  438  0, 0, 0
pidfd_send_signal       424  424  0, 9, 0, 0
ptrace                  101  117  16, VICTIM, 0, 0
ptrace                  101  117  16, PARENT, 0, 0
ptrace                  101  117  0, 0, 0, 0
process_vm_readv        310  270  PARENT, IOV, 1, IOV, 1, 0
process_vm_writev       311  271  VICTIM, IOV, 1, IOV, 1, 0
process_madvise         440  440  0, IOV, 1, 4, 0
mmap                    9    222  0, 4096, 7, 0x22, -1, 0
mmap                    9    222  0, 4096, 5, 0x22, -1, 0
mmap                    9    222  0, 4096, 4, 0x22, -1, 0
mmap                    9    222  0, 4096, 3, 0x02, 0, 0
mmap                    9    222  0, 4096, 3, 0x21, -1, 0
mmap                    9    222  CODE, 4096, 3, 0x32, -1, 0
mmap                    9    222  0, 4096, 3 | 1 << 32, 0x22, -1, 0
mprotect                10   226  PAGE, 4096, 5
mprotect                10   226  PAGE, 4096, 7
mprotect                10   226  CODE, 4096, 3
pkey_mprotect           329  288  PAGE, 4096, 5, -1
mremap                  25   216  PAGE, 4096, 4096, 3, CODE
remap_file_pages        216  234  PAGE, 4096, 0, 0, 0
madvise                 28   233  CODE, 4096, 4
io_uring_setup          425  425  8, PAGE
io_setup                206  -    8, PAGE
bpf                     321  280  5, PAGE, 128
perf_event_open         298  241  PAGE, 0, -1, -1, 0
userfaultfd             323  282  1
userfaultfd             323  282  0
prctl                   157  167  4, 1, 0, 0, 0
prctl                   157  167  1, 0, 0, 0, 0
prctl                   157  167  22, 0, 0, 0, 0
prctl                   157  167  35, 1, PAGE, 0, 0
prctl                   157  167  15, b'init', 0, 0, 0
seccomp                 317  277  1, 0, FILTER
seccomp                 317  277  2, 0, PAGE
landlock_create_ruleset 444  444  0, 0, 1
landlock_restrict_self  446  446  0, 0
setuid                  105  146  0
setresuid               117  147  0, 0, 0
setns                   308  268  0, 0
unshare                 272  97   0x10000000
unshare                 272  97   0x400
mount                   165  40   b'x', FOLDER, b'tmpfs', 0, 0
umount2                 166  39   FOLDER, 2
pivot_root              155  41   b'/', b'/'
chroot                  161  51   b'/'
chdir                   80   49   b'/tmp'
open_tree               428  428  -100, b'/', 1
fsopen                  430  430  b'tmpfs', 0
name_to_handle_at       303  264  -100, FILE, PAGE, PAGE, 0
open_by_handle_at       304  265  0, PAGE, 0
shmget                  29   194  4711, 4096, 0o1666
msgget                  68   186  4711, 0o1666
semget                  64   190  4711, 1, 0o1666
mq_open                 240  180  b'x', 0o101, 0o666, 0
add_key                 248  217  b'user', b'x', b'x', 1, -4
keyctl                  250  219  0, -4, 1, 0, 0
unlinkat                263  35   -100, FILE, 0
mkdirat                 258  34   -100, NEW, 0o777
symlinkat               266  36   FILE, -100, NEW
linkat                  265  37   -100, FILE, -100, NEW, 0
renameat2               316  276  -100, FILE, -100, NEW, 0
fchmodat                268  53   -100, FILE, 0
utimensat               280  88   -100, FILE, 0, 0
truncate                76   45   FILE, 0
statx                   332  291  -100, FILE, 0, 0x7ff, PAGE
inotify_init1           294  26   0
fanotify_init           300  262  0, 0
signalfd4               289  74   -1, PAGE, 8, 0
eventfd2                290  19   0, 0
timerfd_create          283  85   1, 0
epoll_create1           291  20   0
setrlimit               160  164  7, PAGE
prlimit64               302  261  0, 7, PAGE, 0
prlimit64               302  261  PARENT, 7, 0, PAGE
sched_setaffinity       203  122  0, 8, PAGE
setpriority             141  140  0, 0, -20
setsid                  112  157
setpgid                 109  154  0, 0
nanosleep               35   101  PAGE, 0
pause                   34   -
futex                   202  98   PAGE, 0, 0, 0, 0, 0
settimeofday            164  170  PAGE, 0
clock_settime           227  112  0, PAGE
clock_gettime           228  113  0, PAGE
clock_gettime           228  113  2, PAGE
sethostname             170  161  b'owned', 5
reboot                  169  142  0xfee1dead, 672274793, 0, 0
kexec_load              246  104  0, 0, 0, 0
init_module             175  105  PAGE, 8, b''
swapon                  167  224  FILE, 0
syslog                  103  116  3, PAGE, 8
quotactl                179  60   0, 0, 0, 0
uname                   63   160  PAGE
getppid                 110  173
getuid                  102  174
exit                    60   93   0
rt_sigaction            13   134  31, PAGE, 0, 8
rt_sigreturn            15   139
arch_prctl              158  -    0x1002, PAGE
modify_ldt              154  -    1, PAGE, 16
iopl                    172  -    3
"""
