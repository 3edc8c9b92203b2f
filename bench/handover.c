/* SPDX-License-Identifier: MIT */
/*
 * handover: what it costs to hand memory over to another process.
 *
 *     sender             xman, the manager            receiver
 *     mapping --------- [ a memory ] ---------------> mapping    a descriptor
 *     mapping --------------------------------------> copy       every byte
 *
 *     ./bench/handover
 *     ./bench/handover --runs=1 --largest=16777216
 *
 * Getting ends with a new mapping: who reads it pays for its page faults. The
 * copy goes to memory that was touched before: that is copying at its best.
 * A line is a measurement, with tabs: table, row, value, unit; "# " a comment.
 * unix(7), cmsg(3), mmap(2)
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static int runs = 5;
static long long largest = 1 << 30; /* bytes */
static const struct timeval patience = {.tv_sec = 20};

/* Messages are as in extra/xman.c: operation or errno, then ID, then size. */
enum { ALLOCATE = 1, GET, FREE };

enum { ROWS = 6 };
static const char *const names[ROWS] = {"4 KiB",  "64 KiB",  "1 MiB",
                                        "16 MiB", "256 MiB", "1 GiB"};
static const uintmax_t sizes[ROWS] = {1 << 12, 1 << 16, 1 << 20,
                                      1 << 24, 1 << 28, 1 << 30};
static uintmax_t ids[ROWS]; /* the manager's */
static int rows;            /* so many of them, the others are too large */

/* Where the sender has the memories. Their words are wchar_t, because wmemchr()
   is fast however this file is compiled. */
static wchar_t *originals[ROWS];

static const char *xman; /* the manager's program */
static struct sockaddr_un manager = {.sun_family = AF_UNIX};

static double get(int row, uintmax_t count);
static wchar_t *ask(uintmax_t operation, int row);
static double copy(int row, int sender, wchar_t *words);
static void use_one_core(void);
static pid_t start_manager(void);
static void allocate(void);
static int start_sender(void);
static void report(const char *table, int row, double seconds);
static double now(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    setvbuf(stdout, NULL, _IOLBF, 0); /* a line when it is measured */
    signal(SIGCHLD, SIG_DFL);         /* or nobody could be waited for */
    use_one_core();
    const pid_t child = start_manager();
    allocate();
    wchar_t *place = malloc(sizes[rows - 1]);
    if (place == NULL) err(1, "%s", names[rows - 1]);

    const int sender = start_sender();
    for (int run = 0; run < runs; run++)
        for (int row = 0; row < rows; row++) {
            const uintmax_t all = sizes[row] / sizeof *place;
            report("get a memory from xman", row, get(row, 1));
            report("get it, and read all of it", row, get(row, all));
            report("copy it through a socket", row, copy(row, sender, place));
        }
    for (int row = 0; row < rows; row++) ask(FREE, row);
    close(sender);
    kill(child, SIGTERM);
    while (wait(NULL) != -1) continue;
    flush_stdout();
}

static void check_words(int row, const wchar_t *words, uintmax_t count)
{
    for (uintmax_t n = 0; n < count; n++)
        if (words[n] != (wchar_t)n + 1)
            errx(1, "%s: word %ju did not arrive", names[row], n + 1);
}

/* Seconds until there is a new mapping and `count` words of it are read: to
   look for the last of them is to read all. */
static double get(int row, uintmax_t count)
{
    const int times = count > 1 << 18 ? 1 : 100; /* up to 1 MiB a mean */
    double seconds = 0;
    for (int i = 0; i < times; i++) {
        const double start = now();
        wchar_t *words = ask(GET, row);
        const wchar_t *last = wmemchr(words, count, count);
        seconds += now() - start;
        if (last == NULL)
            errx(1, "%s: word %ju did not arrive", names[row], count);
        check_words(row, words, count);
        if (munmap(words, sizes[row]) == -1) err(1, "munmap");
    }
    return seconds / times;
}

static void limit_waiting(int socket)
{
    const socklen_t size = sizeof patience;
    if (setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, size) == -1)
        err(1, "SO_RCVTIMEO");
}

/* Maps the memory whose descriptor comes with the reply. As in xman, a request
   has a socket of its own; bind() without a name finds one for the reply. */
static wchar_t *ask(uintmax_t operation, int row)
{
    uintmax_t message[] = {operation, ids[row], sizes[row]};
    const struct sockaddr *name = (struct sockaddr *)&manager;
    const int client = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (client == -1) err(1, "socket");
    limit_waiting(client);
    if (bind(client, name, sizeof manager.sun_family) == -1) err(1, "bind");
    if (sendto(client, message, sizeof message, 0, name, sizeof manager) == -1)
        err(1, "manager: %s", names[row]);

    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {message, sizeof message};
    struct msghdr reply = {.msg_iov = &data,
                           .msg_iovlen = 1,
                           .msg_control = control,
                           .msg_controllen = sizeof control};
    if (recvmsg(client, &reply, MSG_CMSG_CLOEXEC) == -1)
        err(1, "manager: %s", names[row]);
    if (message[0] != 0)
        errx(1, "manager: %s: %s", names[row], strerror(message[0]));
    const struct cmsghdr *header = CMSG_FIRSTHDR(&reply);
    if (header == NULL) errx(1, "manager: %s: no descriptor", names[row]);
    int fd;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);

    wchar_t *words = mmap(NULL, sizes[row], prot, flags, fd, 0);
    if (words == MAP_FAILED) err(1, "%s", names[row]);
    ids[row] = message[1];
    close(fd);
    close(client);
    return words;
}

/* Seconds until all words are here. The calls need no check: whatever fails, a
   word does not come, and that is found. */
static double copy(int row, int sender, wchar_t *words)
{
    const int times = sizes[row] > 1 << 20 ? 1 : 100;
    const unsigned char request = row;
    double seconds = 0;
    for (int i = 0; i < times; i++) {
        memset(words, 0, sizes[row]);
        const double start = now();
        send(sender, &request, 1, MSG_NOSIGNAL);
        recv(sender, words, sizes[row], MSG_WAITALL);
        seconds += now() - start;
        check_words(row, words, sizes[row] / sizeof *words);
    }
    return seconds / times;
}

/* To wake another core takes longer than to copy a page. */
static void use_one_core(void)
{
    cpu_set_t core = {0};
    const int here = sched_getcpu();
    if (here == -1) err(1, "sched_getcpu");
    CPU_SET(here, &core);
    if (sched_setaffinity(0, sizeof core, &core) == -1)
        printf("# cores: the system chooses them: %s\n", strerror(errno));
}

/* Returns 0 in the child, which ends when we end, however we do. Who receives
   from the stream hears at once that it has ended, and does not wait for ever
   if it is silent. */
static pid_t start_child(int *stream)
{
    const pid_t parent = getpid();
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
        err(1, "socketpair");
    limit_waiting(ends[0]);
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (child > 0) {
        close(ends[1]);
        *stream = ends[0];
        return child;
    }
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) == -1) err(1, "prctl");
    if (getppid() != parent) _exit(1);
    close(ends[0]);
    *stream = ends[1];
    return 0;
}

/* Once the manager is ready, a descriptor of its socket is enough: the name
   goes before a signal comes, and then nothing can be left of it. */
static pid_t start_manager(void)
{
    const char *place = getenv("TMPDIR");
    if (place == NULL || *place == '\0') place = "/tmp";
    char option[256];
    const char *path = option + strlen("--socket=");
    snprintf(option, sizeof option, "--socket=%s/handover-%d", place, getpid());

    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    int stream;
    const pid_t child = start_child(&stream);
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        dup2(stream, STDOUT_FILENO);
        dup2(stream, STDERR_FILENO);
        execl(xman, "xman", option, "manager", NULL);
        _exit(1);
    }
    char said[6] = "";
    recv(stream, said, sizeof said, MSG_WAITALL);
    const int fd = open(path, O_PATH | O_CLOEXEC);
    const int ready = memcmp(said, "ready\n", sizeof said) == 0;
    if (!ready || fd == -1) errx(1, "%s: no manager at %s", xman, path);
    if (unlink(path) == -1) err(1, "%s", path);
    sigprocmask(SIG_SETMASK, &before, NULL);
    sprintf(manager.sun_path, "/proc/self/fd/%d", fd);
    return child;
}

/* All the memories and a copy are less than 5/2 of the largest: they may take
   half of the RAM that is available, and of all addresses. */
static uintmax_t room(void)
{
    uintmax_t kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL) err(1, "/proc/meminfo");
    /* The first A of the file is that of MemAvailable. */
    if (fscanf(file, "%*[^A]Available: %ju", &kib) != 1)
        errx(1, "/proc/meminfo: does not say what is available");
    fclose(file);
    const uintmax_t bytes = kib < SIZE_MAX / 1024 ? kib * 1024 : SIZE_MAX;
    return bytes / 5;
}

static void allocate(void)
{
    const uintmax_t most = room();
    for (int row = 0; row < ROWS && sizes[row] <= (uintmax_t)largest; row++) {
        if (row > 0 && sizes[row] > most) {
            printf("# %s: left out, the memory is too small\n", names[row]);
            continue;
        }
        originals[row] = ask(ALLOCATE, row);
        for (uintmax_t n = 0; n < sizes[row] / sizeof(wchar_t); n++)
            originals[row][n] = n + 1;
        rows = row + 1;
    }
}

/* A process that answers the number of a row with all bytes of its memory. */
static int start_sender(void)
{
    int receiver;
    if (start_child(&receiver) != 0) return receiver;
    unsigned char row;
    while (recv(receiver, &row, 1, 0) == 1)
        send(receiver, originals[row], sizes[row], MSG_NOSIGNAL);
    _exit(0);
}

static void report(const char *table, int row, double seconds)
{
    printf("%s\t%s\t%.1f\tus\n", table, names[row], seconds * 1e6);
    if (ferror(stdout)) err(1, "stdout");
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: handover [--runs=N] [--largest=BYTES] [--xman=PATH]\n"
         "Get up to --largest bytes (1 GiB) from a manager, or copy, --runs\n"
         "times (5).\n"
         "example: handover --runs=1 --largest=16777216");
    flush_stdout();
    exit(0);
}

static long long parse_number(const char *text, long long least, long long most)
{
    const long long number = strtoll(text, NULL, 10);
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        errx(2, "%s: not a number", text);
    if (number < least || number > most)
        errx(2, "%s: not from %lld to %lld", text, least, most);
    return number;
}

/* The one that was built beside this program. */
static const char *own_xman(void)
{
    static char path[PATH_MAX + 20];
    char *own = realpath("/proc/self/exe", NULL);
    if (own == NULL) err(1, "/proc/self/exe");
    snprintf(path, sizeof path, "%s/../extra/xman", dirname(own));
    free(own);
    return path;
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {"largest", 1, NULL, 'l'},
                                     {"runs", 1, NULL, 'r'},
                                     {"xman", 1, NULL, 'x'},
                                     {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case 'l':
            largest = parse_number(optarg, sizes[0], LLONG_MAX - 1);
            break;
        case 'r': runs = parse_number(optarg, 1, INT_MAX); break;
        case 'x': xman = optarg; break;
        case '?': exit(2);
        }
    if (optind < argc) errx(2, "%s: unexpected; try --help", argv[optind]);
    if (xman == NULL) xman = own_xman();
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
