/* SPDX-License-Identifier: MIT */
/*
 * shm_basic: a shared memory object has a name and outlives its processes.
 *
 *     arbiter  ---> +----------------------+ ---> ls, xxd, watch
 *     producer ---> |  /dev/shm/hello_shm  | ---> consumer
 *                   +----------------------+
 *     It exists until shm_unlink(), even while no process uses it.
 *
 *     ./shm_basic arbiter
 *     ./shm_basic producer hello; ./shm_basic consumer
 *
 * shm_open(3), shm_unlink(3), shm_overview(7), posix_fallocate(3), mmap(2)
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int oflag = O_RDWR | O_CREAT; /* --excl adds O_EXCL */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static int keep;         /* --keep: do not remove the object */
static double delay = 1; /* seconds between two letters */
enum { SIZE = 128 };     /* bytes in the object: 8 rows of xxd */

static enum { ARBITER, PRODUCER, CONSUMER } role;
static const char *name = "/hello_shm", *text = "hello";

static void arbitrate(char *object);
static void parse_options(int argc, char *argv[]);
static double parse_delay(const char *word);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (role == CONSUMER) {
        oflag = O_RDONLY;
        prot = PROT_READ;
    }

    const int fd = shm_open(name, oflag, 0600);
    if (fd == -1) err(1, "%s", name);

    /* A new object has no bytes. Without this check mmap() would succeed, but
       the first access would raise SIGBUS. */
    const off_t size = lseek(fd, 0, SEEK_END);
    if (size == 0 && role != CONSUMER) {
        errno = posix_fallocate(fd, 0, SIZE);
        if (errno != 0) err(1, "%s: posix_fallocate", name);
    } else if (size != SIZE) {
        errx(1, "%s: it must have %d bytes; run a producer or use --name", name,
             SIZE);
    }

    char *object = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (object == MAP_FAILED) err(1, "%s: mmap", name);
    printf("%s holds \"%.*s\"\n", name, SIZE, object);

    if (role == ARBITER) arbitrate(object);
    if (role == PRODUCER) strncpy(object, text, SIZE); /* pads with zeros */

    /* This removes the name. The memory exists until its last mapping ends. */
    if (role != PRODUCER && !keep) {
        if (shm_unlink(name) == -1) err(1, "%s: shm_unlink", name);
    }
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

static void arbitrate(char *object)
{
    snprintf(object, SIZE, "Hello, shared memory! I am %d", getpid());
    puts("The object holds a greeting. Press Enter to fill it ten times.");
    getchar();
    for (int letter = 'A'; letter <= 'J'; letter++) {
        memset(object, letter, SIZE);
        printf("filled with %c\n", letter);
        usleep(delay * 1e6);
    }
    puts("Press Enter to end.");
    getchar();
}

static void parse_options(int argc, char *argv[])
{
    const char usage[] =
        "usage: shm_basic [--excl] [--keep] [--name=/NAME] [--delay=SECONDS]\n"
        "       [arbiter | producer [TEXT] | consumer]";
    const struct option options[] = {
        {"delay", required_argument, NULL, 'd'},
        {"excl", no_argument, &oflag, oflag | O_EXCL},
        {"keep", no_argument, &keep, 1},
        {"name", required_argument, NULL, 'n'},
        {NULL, 0, NULL, 0}};
    int option = 0;
    while (option != -1) {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == 'd') delay = parse_delay(optarg);
        if (option == 'n') name = optarg;
        if (option == '?') errx(2, "%s", usage);
    }

    const char *word = argc > optind ? argv[optind] : "arbiter";
    if (strcmp(word, "producer") == 0) role = PRODUCER;
    if (strcmp(word, "consumer") == 0) role = CONSUMER;
    if (role == ARBITER && strcmp(word, "arbiter") != 0) errx(2, "%s", usage);

    const int most = role == PRODUCER ? 2 : 1;
    if (argc - optind > most) errx(2, "%s", usage);
    if (argc - optind == 2) text = argv[optind + 1];
    if (strlen(text) >= SIZE) errx(2, "TEXT has more than %d bytes", SIZE - 1);
}

static double parse_delay(const char *word)
{
    char *end;
    const double seconds = strtod(word, &end);
    const int is_number = end != word && *end == '\0';
    if (is_number && seconds >= 0 && seconds <= 60) return seconds;
    errx(2, "--delay=%s: the delay must be a number from 0 to 60", word);
}
