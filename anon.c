/* SPDX-License-Identifier: MIT */
/*
 * anon: parent and child share memory that has no name.
 *
 *     parent                 the same page               child
 *     text = "..."      ---> +------------+
 *     wake()            ----------------------------->   has waited
 *                            |    text    | --------->   reads text
 *                            |   reply    | <---------   reply = "..."
 *     reads reply       <--- +------------+              exits
 *
 *     ./anon procmaps.c
 *     ./anon --private            after fork() each has its own page
 *
 * mmap(2), fork(2), sigwaitinfo(2), sem_overview(7)
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED | MAP_ANONYMOUS;
static enum { SIGNAL, SEMAPHORE, SLEEP, NONE } notify = SIGNAL;

/* It is mapped before the fork: both have this one or, if private, a copy. */
struct page {
    sem_t written;   /* posted when the text is */
    char text[100];  /* the parent's */
    char reply[100]; /* the child's */
};

static const char *path; /* the file whose lines are counted, or NULL */
static int fd;           /* it is open here */
static size_t length;    /* and has so many bytes */
static sigset_t usr1;    /* SIGUSR1, and nothing else */
static pid_t parent;

static int be_child(struct page *page);
static void wait_to_be_woken(struct page *page);
static void wait_for_signal(void);
static void wait_for_semaphore(sem_t *semaphore);
static void wait_in_vain(sem_t *semaphore);
static void wake(pid_t child, struct page *page);
static void write_text(char *text, pid_t child);
static long count_lines(pid_t child);
static void stop_counting(int number);
static void wait_for_end(pid_t child);
static int has_ended(pid_t child, int options);
static void say(const char *who, const char *does, const char *text);
static void open_file(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    if (path) open_file();

    struct page *page = mmap(NULL, sizeof *page, prot, flags, -1, 0);
    if (page == MAP_FAILED) err(1, "mmap");
    if (sem_init(&page->written, 1, 0) == -1) err(1, "sem_init");
    setvbuf(stdout, NULL, _IOLBF, 0); /* the lines of both, in order */
    strcpy(page->text, "from before the fork");
    say("parent", "writes", page->text);
    flush_stdout();

    /* Blocked, the signal stays until the child takes it. Else it would kill a
       child that does not wait yet. */
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);

    signal(SIGCHLD, SIG_DFL); /* ignored, there would be no status */
    parent = getpid();
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) return be_child(page);

    /* Without waiting it is luck who is first. Here the child always is. */
    if (notify == NONE) wait_for_end(child);
    write_text(page->text, child);
    say("parent", "writes", page->text);
    wake(child, page);
    wait_for_end(child);
    say("parent", "reads", page->reply);
    flush_stdout();
}

static int be_child(struct page *page)
{
    /* It ends with its parent, or at once if it has none any more. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
    if (getppid() != parent) return 1;

    wait_to_be_woken(page);
    say("child", "finds", page->text);
    strcpy(page->reply, "thank you");
    say("child", "writes", page->reply);
    flush_stdout();
    return 0;
}

/* How the child learns that the text is written. */
static void wait_to_be_woken(struct page *page)
{
    switch (notify) {
    case SIGNAL: wait_for_signal(); break;
    case SEMAPHORE:
        if (flags & MAP_PRIVATE)
            wait_in_vain(&page->written);
        else
            wait_for_semaphore(&page->written);
        break;
    case SLEEP: sleep(1); break; /* and hope */
    case NONE: break;
    }
}

/* Others may send SIGUSR1, too: only the parent's counts. */
static void wait_for_signal(void)
{
    siginfo_t info = {0};
    while (info.si_pid != parent) {
        const int number = sigwaitinfo(&usr1, &info);
        if (number == -1 && errno != EINTR) err(1, "sigwaitinfo");
    }
}

static void wait_for_semaphore(sem_t *semaphore)
{
    while (sem_wait(semaphore) == -1)
        if (errno != EINTR) err(1, "sem_wait");
}

/* A private semaphore is the child's own: nobody else can post it. */
static void wait_in_vain(sem_t *semaphore)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 2;
    while (sem_timedwait(semaphore, &end) == -1) {
        if (errno == ETIMEDOUT)
            errx(1, "semaphore: still 0 after two seconds: it is private");
        if (errno != EINTR) err(1, "sem_timedwait");
    }
}

/* How the parent tells it. */
static void wake(pid_t child, struct page *page)
{
    switch (notify) {
    case SIGNAL:
        if (kill(child, SIGUSR1) == -1) err(1, "kill");
        break;
    case SEMAPHORE:
        if (sem_post(&page->written) == -1) err(1, "sem_post");
        break;
    case SLEEP:
    case NONE: break; /* nobody is told */
    }
}

static void write_text(char *text, pid_t child)
{
    if (path)
        sprintf(text, "%ld lines", count_lines(child));
    else
        strcpy(text, "greetings from your parent");
}

/* The parent's work. Now and then it looks whether the child has failed, which
   ends the parent, too. */
static long count_lines(pid_t child)
{
    if (length == 0) return 0; /* mmap() refuses a length of 0 */
    char *text = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
    if (text == MAP_FAILED) err(1, "%s: mmap of %zu bytes", path, length);
    const struct sigaction action = {.sa_handler = stop_counting};
    sigaction(SIGBUS, &action, NULL);
    long lines = 0;
    for (size_t i = 0; i < length; i++) {
        if (i % (1 << 20) == 0) has_ended(child, WNOHANG);
        if (text[i] == '\n') lines++;
    }
    return lines;
}

/* The fault is in our own loads, so stdio works here. */
static void stop_counting(int number)
{
    struct stat status;
    (void)number;
    if (fstat(fd, &status) == -1) err(1, "%s", path);
    if ((size_t)status.st_size < length)
        errx(1, "%s: truncated while it was counted", path);
    errx(1, "%s: cannot be read", path);
}

/* While a SIGUSR1 is pending, a second one is lost. If the first was not the
   parent's, the child still waits: so it gets more until it has ended. */
static void wait_for_end(pid_t child)
{
    int ended = 0;
    while (notify == SIGNAL && !ended) {
        usleep(1000);
        kill(child, SIGUSR1);
        ended = has_ended(child, WNOHANG);
    }
    has_ended(child, 0);
}

/* Waits for the end, but with WNOHANG as options only looks. If the child has
   failed, so does the parent. WNOWAIT leaves its status for the next call. */
static int has_ended(pid_t child, int options)
{
    siginfo_t info = {0};
    if (waitid(P_PID, child, &info, WEXITED | WNOWAIT | options) == -1)
        err(1, "waitid");
    if (info.si_pid == 0) return 0;
    if (info.si_code != CLD_EXITED)
        errx(1, "child %d: %s", child, strsignal(info.si_status));
    if (info.si_status != 0) exit(1); /* it has said why */
    return 1;
}

static void say(const char *who, const char *does, const char *text)
{
    printf("[%s %d] %s \"%s\" at %p\n", who, getpid(), does, text,
           (const void *)text);
}

static void open_file(void)
{
    struct stat status;
    fd = open(path, O_RDONLY | O_NONBLOCK); /* and do not wait at a FIFO */
    if (fd == -1) err(1, "%s", path);
    if (fstat(fd, &status) == -1) err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", path);
    length = status.st_size;
    if ((off_t)length != status.st_size)
        errx(1, "%s: larger than the address space", path);
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: anon [--private] [--notify=signal|semaphore|sleep|none] "
         "[FILE]\n"
         "The parent tells its child how many lines FILE has; it replies.\n"
         "  --private           use MAP_PRIVATE: nothing is shared\n"
         "  --notify=signal     wake the child with SIGUSR1, as without it\n"
         "  --notify=semaphore  wake it with a semaphore in the page\n"
         "  --notify=sleep      let it sleep a second, and hope\n"
         "  --notify=none       do not let it wait\n"
         "example: anon --notify=semaphore procmaps.c");
    flush_stdout();
    exit(0);
}

static void parse_notify(const char *name)
{
    if (strcmp(name, "signal") == 0)
        notify = SIGNAL;
    else if (strcmp(name, "semaphore") == 0)
        notify = SEMAPHORE;
    else if (strcmp(name, "sleep") == 0)
        notify = SLEEP;
    else if (strcmp(name, "none") == 0)
        notify = NONE;
    else
        errx(2, "--notify=%s: not signal, semaphore, sleep or none", name);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"help", 0, NULL, 'h'},
        {"notify", 1, NULL, 'n'},
        {"private", 0, &flags, MAP_PRIVATE | MAP_ANONYMOUS},
        {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case 'n': parse_notify(optarg); break;
        case '?': exit(2);
        }
    if (argc > optind + 1) errx(2, "want one FILE at most; try --help");
    path = argv[optind];
}

/* With stdout closed, open() would return 1, and printf() fill the file.
   A closed stdin is an empty one. */
static void check_streams(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) == -1) err(1, "stdout");
    if (fcntl(STDERR_FILENO, F_GETFD) == -1) err(1, "stderr");
    if (fcntl(STDIN_FILENO, F_GETFD) != -1) return;
    if (open("/dev/null", O_RDONLY) == -1) err(1, "/dev/null");
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
