/* SPDX-License-Identifier: MIT */
/*
 * shm_basic: an object of shared memory: who creates it, who removes it.
 *
 *     arbiter  ---> +----------------------+ ---> xxd, watch, ls
 *     producer ---> |  /dev/shm/hello_shm  | ---> consumer
 *                   +----------------------+
 *     It stays until shm_unlink(), also when no process uses it.
 *     ./shm_basic arbiter
 *     watch -n0.1 xxd /dev/shm/hello_shm       in another terminal
 *     ./shm_basic producer hello && ./shm_basic consumer
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 128 }; /* bytes: 8 rows of xxd */

static const char *name = "/hello_shm";
static volatile sig_atomic_t owned; /* to be removed, whatever ends us */
static int fd;

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}

static void usage(void)
{
    puts(
        "usage: shm_basic [--name=/NAME] [--excl] [--keep] [--delay=SECONDS]\n"
        "                 [arbiter | producer [TEXT] | consumer]\n"
        "arbiter creates an object, fills it ten times, one --delay (1) after\n"
        "another, and removes it. producer leaves TEXT in it, and consumer\n"
        "removes it. --excl refuses an old object, --keep removes none.\n"
        "example: shm_basic producer hello && shm_basic consumer");
    flush_stdout();
    exit(0);
}

/* With stdout closed, open() would return 1: printf() would fill the file. */
static void guard_streams(void)
{
    for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
        if (fcntl(i, F_GETFD) == -1 && open("/dev/null", O_RDWR) != 0)
            errx(1, "stdout or stderr: closed");
}

/* Also in signal handlers; only what is still ours, no other of this name. */
static void remove_object(void)
{
    struct stat status;
    if (owned && fstat(fd, &status) == 0 && status.st_nlink) shm_unlink(name);
}

static void end_by_signal(int signal)
{
    remove_object();
    raise(signal);
}

static void remove_object_at_the_end(void)
{
    const int signals[] = {SIGBUS, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    const struct sigaction action = {.sa_handler = end_by_signal,
                                     .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
    atexit(remove_object);
}

/* A new object is empty until posix_fallocate() gives it size and memory. */
static char *map_object(int create, int excl)
{
    int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED;
    struct stat status;
    fd = create ? shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600) : -1;
    const int found = fd == -1;
    owned = !found;
    if (found) fd = shm_open(name, O_RDWR, 0);
    if (fd == -1 || fstat(fd, &status) == -1) err(1, "%s", name);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", name);
    if (status.st_uid != geteuid())
        errx(1, "%s: belongs to user %u", name, status.st_uid);
    if (found && create && excl)
        errx(1, "%s: exists, and is yours: rm /dev/shm%s", name, name);
    if (status.st_size != SIZE && (status.st_size != 0 || !create))
        errx(1, "%s: not an object of %d bytes", name, SIZE);
    errno = create ? posix_fallocate(fd, 0, SIZE) : 0;
    if (errno != 0) err(1, "%s", name);
    char *object = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (object == MAP_FAILED) err(1, "%s", name);
    if (found) printf("%s holds \"%.*s\"\n", name, SIZE, object);
    flush_stdout();
    return object;
}

static void wait_for_enter(const char *what)
{
    printf("Enter %s\n", what);
    flush_stdout();
    for (int c = 0; c != '\n' && c != EOF;) c = getchar();
}

static void fill_ten_times(char *object, double delay)
{
    for (int letter = 'A'; letter < 'A' + 10; letter++) {
        memset(object, letter, SIZE);
        printf("[%d] has filled it with %c\n", getpid(), letter);
        flush_stdout();
        usleep(delay * 1e6);
    }
}

int main(int argc, char *argv[])
{
    int excl = 0, keep = 0, option;
    double delay = 1;
    char rest;
    const struct option options[] = {
        {"delay", 1, NULL, 'd'}, {"excl", 0, &excl, 1},  {"help", 0, NULL, 'h'},
        {"keep", 0, &keep, 1},   {"name", 1, NULL, 'n'}, {NULL, 0, NULL, 0}};
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1) {
        if (option == 'd' && (sscanf(optarg, "%lf%c", &delay, &rest) != 1 ||
                              !(delay >= 0 && delay <= 60)))
            errx(2, "--delay=%s: not 0 to 60 seconds", optarg);
        if (option == 'n') name = optarg;
        if (option == 'h') usage();
        if (option == '?') return 2;
    }
    argc -= optind, argv += optind;
    const char *role = argc > 0 ? argv[0] : "arbiter";
    const char *text = argc > 1 ? argv[1] : "hello";
    const int arbiter = !strcmp(role, "arbiter");
    const int producer = !strcmp(role, "producer");
    if (argc > 1 + producer ||
        (!arbiter && !producer && strcmp(role, "consumer") != 0))
        errx(2, "want arbiter, producer [TEXT] or consumer; try --help");
    if (strlen(text) >= SIZE) errx(2, "TEXT: longer than %d bytes", SIZE - 1);
    if (*name != '/') errx(2, "--name=%s: begins with no slash", name);

    guard_streams();
    signal(SIGXFSZ, SIG_IGN);
    remove_object_at_the_end();
    char *object = map_object(arbiter || producer, excl);
    owned = !producer && !keep;
    if (producer) strncpy(object, text, SIZE);
    if (arbiter) {
        snprintf(object, SIZE, "Hello, shared memory! I am %d", getpid());
        printf("[%d] has written a greeting into %s\n", getpid(), name);
        wait_for_enter("fills it ten times");
        fill_ten_times(object, delay);
        wait_for_enter("ends this");
    }
    flush_stdout();
}
