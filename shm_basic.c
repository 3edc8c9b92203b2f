/* SPDX-License-Identifier: MIT */
/*
 * shm_basic: an object of shared memory: who creates it, who removes it.
 *
 *     arbiter  ---> +----------------------+ ---> xxd, watch, ls
 *     producer ---> |  /dev/shm/hello_shm  | ---> consumer
 *                   +----------------------+
 *     It stays until shm_unlink(), also when no process uses it.
 *
 *     ./shm_basic arbiter
 *     ./shm_basic producer hello && ./shm_basic consumer
 *
 * shm_open(3), shm_unlink(3), shm_overview(7), mmap(2)
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <ctype.h>
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

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static double delay = 1; /* seconds between two letters */
static int excl;         /* refuse an object that exists already */
static int keep;         /* leave the object there at the end */

enum { SIZE = 128 }; /* bytes: 8 rows of xxd */

static enum { ARBITER, PRODUCER, CONSUMER } role;
static const char *name = "/hello_shm", *text = "hello";

static volatile int fd; /* the handlers of signals use it, too */
static int found;       /* the object was there before */
static char *object;
static volatile sig_atomic_t owned; /* it goes when this process ends */

static void open_object(void);
static void create_object(void);
static void check_object(void);
static void size_object(void);
static void arbitrate(void);
static void produce(void);
static void consume(void);
static void say_what_it_holds(void);
static void remove_object(void);
static void remove_owned_object(void);
static void end_by_signal(int number);
static void explain_sigbus(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void wait_for_enter(const char *what);
static void catch_signals(void (*handler)(int));
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    atexit(remove_owned_object);
    catch_signals(end_by_signal);
    explain_sigbus();

    open_object();
    if (role != CONSUMER) size_object();
    if (role == CONSUMER) prot = PROT_READ; /* it needs no more */
    object = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (object == MAP_FAILED) err(1, "%s: mmap", name);
    if (found) say_what_it_holds();

    switch (role) {
    case ARBITER: arbitrate(); break;
    case PRODUCER: produce(); break;
    case CONSUMER: consume(); break;
    }
    flush_stdout();
}

static void open_object(void)
{
    found = 1;
    if (role != CONSUMER) create_object(); /* or find that it exists */

    const int access = role == CONSUMER ? O_RDONLY : O_RDWR;
    if (found) fd = shm_open(name, access | O_NONBLOCK, 0); /* maybe a FIFO */
    if (fd == -1) err(1, "%s", name);
    check_object();
}

/* With O_EXCL, of several that come at once one creates it. Signals wait until
   it is known who owns it, and so removes it. */
static void create_object(void)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd == -1 && errno != EEXIST) err(1, "%s: shm_open to create it", name);
    found = fd == -1;
    owned = !found;
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* An object is a file of /dev/shm, and anybody may have put it there: only a
   regular one, of this user, with the right size, is used. */
static void check_object(void)
{
    struct stat status;
    if (fstat(fd, &status) == -1) err(1, "%s", name);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", name);
    if (status.st_uid != geteuid())
        errx(1, "%s: belongs to user %u", name, status.st_uid);
    if (found && excl)
        errx(1, "%s: exists, and is yours: rm /dev/shm%s", name, name);
    if (status.st_size == 0 && role == CONSUMER)
        errx(1, "%s: is empty: it was created, but has no size yet", name);
    if (status.st_size != 0 && status.st_size != SIZE)
        errx(1, "%s: not an object of %d bytes", name, SIZE);
}

/* A new object is empty. Its bytes are reserved: when /dev/shm is full, that is
   an error here, which posix_fallocate() returns, and not SIGBUS later. */
static void size_object(void)
{
    signal(SIGXFSZ, SIG_IGN); /* a limit is an error, too */
    errno = posix_fallocate(fd, 0, SIZE);
    if (errno != 0) err(1, "%s", name);
}

/* However it ends, it removes the object. With --keep the object stays, except
   a new one when an error or a signal ends this. */
static void arbitrate(void)
{
    char greeting[SIZE] = "";
    if (!keep) owned = 1;
    snprintf(greeting, SIZE, "Hello, shared memory! I am %d", getpid());
    memcpy(object, greeting, SIZE);
    printf("[%d] has written a greeting into %s\n", getpid(), name);
    wait_for_enter("fills it ten times");

    for (int letter = 'A'; letter < 'A' + 10; letter++) {
        memset(object, letter, SIZE);
        printf("[%d] has filled it with %c\n", getpid(), letter);
        flush_stdout();
        usleep(delay * 1e6);
    }
    wait_for_enter("ends this");
    if (!keep) remove_object();
    owned = 0;
}

/* The object stays when the process has gone. Zeros follow the text. */
static void produce(void)
{
    strncpy(object, text, SIZE);
    owned = 0;
}

/* main() has printed what it holds. */
static void consume(void)
{
    if (!keep) remove_object();
}

/* No bytes of others are sent to the terminal, lest they be its commands. */
static void say_what_it_holds(void)
{
    char copy[SIZE + 1] = "";
    memcpy(copy, object, SIZE);
    for (char *c = copy; *c != '\0'; c++)
        if (!isprint((unsigned char)*c)) *c = '.';
    printf("%s holds \"%s\"\n", name, copy);
    flush_stdout();
}

/* Without its name, the object lives as long as it is mapped. What has got the
   name since is another one. */
static void remove_object(void)
{
    struct stat status;
    if (fstat(fd, &status) == -1) err(1, "%s", name);
    if (status.st_nlink == 0) {
        printf("[%d] my object has lost the name %s\n", getpid(), name);
        return;
    }
    if (shm_unlink(name) == -1) err(1, "%s: shm_unlink", name);
}

/* The same for an end by an error or a signal, where nothing can be said. To
   call it in a handler is safe: fstat() is so, and shm_unlink() is unlink(). */
static void remove_owned_object(void)
{
    struct stat status;
    if (!owned) return;
    if (fstat(fd, &status) == -1) return;
    if (status.st_nlink > 0) shm_unlink(name);
}

/* Because of SA_RESETHAND the second signal kills. */
static void end_by_signal(int number)
{
    remove_owned_object();
    raise(number);
}

/* The fault is in our own loads and stores, so stdio works here. Returning runs
   the instruction again; because of SA_RESETHAND it then kills. */
static void explain_fault(int number, siginfo_t *info, void *context)
{
    struct stat status = {.st_size = 0};
    (void)number;
    (void)context;
    fstat(fd, &status);
    const long long byte = (char *)info->si_addr - object;
    const long long size = status.st_size;
    const char *reason = "/dev/shm is full";
    if (byte >= size) reason = "beyond the end of the object";
    fprintf(stderr, "shm_basic: SIGBUS, %s: byte %lld of %lld, at %p\n", reason,
            byte, size, info->si_addr);
    remove_owned_object();
}

static void explain_sigbus(void)
{
    const struct sigaction action = {.sa_sigaction = explain_fault,
                                     .sa_flags = SA_SIGINFO | SA_RESETHAND};
    sigaction(SIGBUS, &action, NULL);
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: shm_basic [OPTION]... [arbiter | producer [TEXT] | consumer]\n"
         "arbiter creates an object, fills it ten times, and removes it;\n"
         "producer leaves TEXT (hello) in it; consumer prints and removes it.\n"
         "  --name=/NAME     the name of the object (/hello_shm)\n"
         "  --excl           refuse an object that exists already\n"
         "  --keep           leave the object there at the end\n"
         "  --delay=SECONDS  the arbiter's between two letters (1)\n"
         "example: shm_basic producer hello && shm_basic consumer");
    flush_stdout();
    exit(0);
}

static double parse_seconds(const char *number)
{
    char *end;
    const double seconds = strtod(number, &end);
    const int strange = number[strspn(number, "0123456789.")] != '\0';
    if (strange || end == number || *end != '\0')
        errx(2, "%s: not a number of seconds", number);
    if (seconds > 60) errx(2, "%s: not from 0 to 60", number);
    return seconds;
}

static void parse_role(const char *word)
{
    if (strcmp(word, "arbiter") == 0)
        role = ARBITER;
    else if (strcmp(word, "producer") == 0)
        role = PRODUCER;
    else if (strcmp(word, "consumer") == 0)
        role = CONSUMER;
    else
        errx(2, "%s: not arbiter, producer or consumer", word);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"delay", 1, NULL, 'd'}, {"excl", 0, &excl, 1},  {"help", 0, NULL, 'h'},
        {"keep", 0, &keep, 1},   {"name", 1, NULL, 'n'}, {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'd': delay = parse_seconds(optarg); break;
        case 'h': usage(); break;
        case 'n': name = optarg; break;
        case '?': exit(2);
        }
    if (*name != '/') errx(2, "--name=%s: begins with no slash", name);

    argc -= optind;
    argv += optind;
    if (argc > 0) parse_role(argv[0]);
    const int most = role == PRODUCER ? 2 : 1;
    if (argc > most)
        errx(2, "want arbiter, producer [TEXT] or consumer; try --help");
    if (argc == 2) text = argv[1];
    if (excl && role == CONSUMER) errx(2, "--excl: a consumer creates nothing");
    if (strlen(text) >= SIZE) errx(2, "TEXT: longer than %d bytes", SIZE - 1);
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

/* The end of the input is Enter, too. */
static void wait_for_enter(const char *what)
{
    printf("[%d] Enter %s\n", getpid(), what);
    flush_stdout();
    int key = getchar();
    while (key != '\n' && key != EOF) key = getchar();
}

/* The end by a signal is cleaned up after. What was ignored at the start, as
   SIGHUP is by nohup(1), stays ignored. */
static void catch_signals(void (*handler)(int))
{
    const int signals[] = {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    const struct sigaction action = {.sa_handler = handler,
                                     .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        sigaction(signals[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
    }
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
