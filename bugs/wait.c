/* SPDX-License-Identifier: MIT */
/* Waits for the number that its child finds, then prints it: ./bugs/wait */
#define _GNU_SOURCE
#include <err.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
    int *number = mmap(NULL, sizeof *number, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sem_t *ready = malloc(sizeof *ready);
    if (number == MAP_FAILED || sem_init(ready, 1, 0) == -1)
        err(1, "no memory");
    if (fork() == 0) {
        *number = 42;
        return sem_post(ready);
    }
    sem_wait(ready);
    printf("The number is %d.\n", *number);
    return 0;
}
