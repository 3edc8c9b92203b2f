/* SPDX-License-Identifier: MIT */
/*
 * anon: parent and child share memory that has no name.
 *
 *     parent                 the same page               child
 *     question = "..."  ---> +------------+
 *     notify            ----------------------------->   wakes up
 *                            |  question  | --------->   reads question
 *                            |   answer   | <---------   answer = "..."
 *     reads answer     <---- +------------+              exits
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
#include <unistd.h>

struct page {
    sem_t written;
    char question[100], answer[100];
};

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}

static void usage(void)
{
    puts("usage: anon [--private] [--notify=signal|semaphore] [FILE]\n"
         "The parent tells its child how many lines FILE has; it answers.\n"
         "  --private           use MAP_PRIVATE: nothing is shared\n"
         "  --notify=semaphore  wake the child with a semaphore in the page\n"
         "example: anon --notify=semaphore procmaps.c");
    flush_stdout();
    exit(0);
}

/* With stdout closed, open() would return 1: printf() would fill the file. */
static void guard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR) != 0)
            errx(1, "stdout or stderr: closed");
}

static const char *map_file(const char *path, size_t *length)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd == -1 || fstat(fd, &status) == -1) err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", path);
    *length = status.st_size;
    if (*length == 0) return "";
    char *text = mmap(NULL, *length, PROT_READ, MAP_PRIVATE, fd, 0);
    if (text == MAP_FAILED) err(1, "%s", path);
    return text;
}

static void stop_counting(int number)
{
    (void)number;
    errx(1, "the file has been truncated"); // NOLINT(bugprone-signal-handler)
}

static long count_lines(const char *text, size_t length)
{
    long lines = 0;
    signal(SIGBUS, stop_counting);
    for (size_t i = 0; i < length; i++) lines += text[i] == '\n';
    return lines;
}

/* SIGUSR1 was blocked before the fork. Only the parent's counts. */
static void wait_for_signal(const sigset_t *set)
{
    siginfo_t info = {0};
    while (info.si_pid != getppid())
        if (sigwaitinfo(set, &info) == -1 && errno != EINTR) err(1, "sigwait");
}

static void wait_for_semaphore(sem_t *semaphore)
{
    while (sem_wait(semaphore) == -1 && errno == EINTR) continue;
}

static void answer(struct page *page)
{
    printf("[child %d] finds \"%s\"\n", getpid(), page->question);
    if (page->question[0] != '\0') strcpy(page->answer, "thank you");
}

int main(int argc, char *argv[])
{
    int prot = PROT_READ | PROT_WRITE;
    int flags = MAP_SHARED | MAP_ANONYMOUS, option;
    const char *notify = "signal", *text = NULL;
    const struct option options[] = {
        {"help", 0, NULL, 'h'},
        {"notify", 1, NULL, 'n'},
        {"private", 0, &flags, MAP_PRIVATE | MAP_ANONYMOUS},
        {0}};
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1) {
        if (option == 'n') notify = optarg;
        if (option == 'h') usage();
        if (option == '?') return 2;
    }
    const int by_semaphore = strcmp(notify, "semaphore") == 0;
    if (!by_semaphore && strcmp(notify, "signal") != 0)
        errx(2, "--notify=%s: not signal or semaphore", notify);
    if (by_semaphore && flags & MAP_PRIVATE)
        errx(2, "--private: the semaphore would be private, too");
    if (argc > optind + 1) errx(2, "want one FILE at most; try --help");

    guard_streams();
    size_t length = 0;
    if (argc > optind) text = map_file(argv[optind], &length);
    struct page *page = mmap(NULL, sizeof *page, prot, flags, -1, 0);
    if (page == MAP_FAILED || sem_init(&page->written, 1, 0) == -1)
        err(1, "mmap");
    setvbuf(stdout, NULL, _IOLBF, 0);

    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
    const pid_t parent = getpid(), child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) return 1;
        if (by_semaphore) wait_for_semaphore(&page->written);
        if (!by_semaphore) wait_for_signal(&usr1);
        answer(page);
        return 0;
    }
    strcpy(page->question, "greetings from your parent");
    if (text) sprintf(page->question, "%ld lines", count_lines(text, length));
    printf("[parent %d] writes \"%s\"\n", parent, page->question);
    if ((by_semaphore ? sem_post(&page->written) : kill(child, SIGUSR1)) == -1)
        err(1, "notify");
    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid");
    if (WIFSIGNALED(status))
        errx(1, "child %d: %s", child, strsignal(WTERMSIG(status)));
    if (status != 0) return 1;
    printf("[parent %d] reads \"%s\"\n", parent, page->answer);
    flush_stdout();
}
