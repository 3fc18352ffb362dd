package sample

// Controller is the object that manages a pod, as the pod's owner references say. The zero value
// means that there is none.
type Controller struct{ Kind, Name string }
