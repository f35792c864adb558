// The process that holds a pod's namespaces: waits for ever, reaps children (it is PID 1 where containers share a PID
// namespace), and ends on SIGTERM or SIGINT. No libc, so that the image is a few kilobytes.
//
// Signals are blocked and taken one by one: for PID 1 the kernel drops signals that have no handler unless they are blocked.

#if defined(__x86_64__)
enum { SYS_sigprocmask = 14, SYS_sigtimedwait = 128, SYS_wait4 = 61, SYS_exit = 231 };

static long call(long n, long a, long b, long c, long d) {
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum { SYS_sigprocmask = 135, SYS_sigtimedwait = 137, SYS_wait4 = 260, SYS_exit = 94 };

static long call(long n, long a, long b, long c, long d) {
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#else
#error "pause has no system calls for this architecture"
#endif

enum { SIGINT = 2, SIGTERM = 15, SIGCHLD = 17, SIG_BLOCK = 0, WNOHANG = 1 };

static unsigned long bit(int signal) { return 1ul << (signal - 1); }

__attribute__((noreturn)) void _start(void) {
    unsigned long taken = bit(SIGINT) | bit(SIGTERM) | bit(SIGCHLD);
    call(SYS_sigprocmask, SIG_BLOCK, (long)&taken, 0, sizeof taken);
    for (;;) {
        long signal = call(SYS_sigtimedwait, (long)&taken, 0, 0, sizeof taken);
        if (signal == SIGINT || signal == SIGTERM) {
            call(SYS_exit, 0, 0, 0, 0);
        }
        while (call(SYS_wait4, -1, 0, WNOHANG, 0) > 0) {
        }
    }
}
